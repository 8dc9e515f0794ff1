"""How a model learns the tasks: SFT (one dataset) and instruction tuning (several) on the very questions of evaluation.

Importing this package loads neither torch nor transformers.
"""
