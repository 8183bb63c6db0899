"""ResNet-18, every weight trained: the paper's baseline (92.02 % there)."""

from labelmill.training.classifiers.full import merge, prepare, save_apart, set_mode

__all__ = ["merge", "prepare", "save_apart", "set_mode"]
