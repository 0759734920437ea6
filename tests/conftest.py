"""What all tests share: one thread, and no time limits (a busy machine is no failure)."""

import os

# Before torch is imported: many threads slow small tensors down, and tests that count on equal sums need one order.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import HealthCheck, settings

settings.register_profile("tripel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tripel")
