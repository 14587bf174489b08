"""What a secure sum of answers to each question is a sum of."""

from protocol.summed.questions import NOBODY, nobody
from protocol.summed.tree import Tree, leaves, with_leaves

__all__ = ["NOBODY", "Tree", "leaves", "nobody", "with_leaves"]
