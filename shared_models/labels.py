"""The one label convention inside the project; every source is mapped to it at the door."""

__all__ = ["BACKGROUND", "CLASS_NAMES", "LV", "MYO", "NUM_CLASSES", "RV"]

BACKGROUND, LV, MYO, RV = 0, 1, 2, 3
NUM_CLASSES = 4
CLASS_NAMES = {LV: "LV", MYO: "MYO", RV: "RV"}
