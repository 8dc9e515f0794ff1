"""What MMLA is: data access, answer parsing, scorers, statistics, published scores. No lm_eval, torch, transformers."""

from mmla_tasks.answers import parse_answer
from mmla_tasks.documents import Dataset, Documents, Split
from mmla_tasks.errors import MmlaError
from mmla_tasks.records import Answer, Clip, Document
from mmla_tasks.root import DataRoot
from mmla_tasks.sources import SOURCES

__all__ = [
    "SOURCES",
    "Answer",
    "Clip",
    "DataRoot",
    "Dataset",
    "Document",
    "Documents",
    "MmlaError",
    "Split",
    "parse_answer",
]
