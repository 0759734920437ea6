"""Models: configs, skeletons, and named sizes."""
