"""From what the owners of IEMOCAP and MOSI hand out to clips that the tasks find.

``distributions`` reads an original layout, ``iemocap`` and ``mosi`` know one each, ``matching`` holds it against the
rows of the data root, ``placing`` puts files there. Why whole dialogues stay whole: docs/decisions/008.
"""
