"""The models that lm-eval can ask through this package; each module loads its heavy libraries on first use."""
