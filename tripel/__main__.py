"""`python -m tripel` is `tripel`."""

from tripel.cli import main

main()
