"""What MMLA is: data access, answer parsing, scorers, statistics, published scores. No lm_eval, torch, transformers."""
