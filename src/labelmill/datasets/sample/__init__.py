"""A sample video of a bench camera that needs no download: drawn by a seed, with known ground truth.

Hands take parts, place them, move them from a bin to the mat, or only reach over, while a cart and a ball
roll by, somebody's shadow passes, a lamp blinks and the light flickers.

<folder>/
  sample.json              what it was made from, and the digest of every other file
  bench.mp4                640 x 360, H.264
  truth.json               boxes and labels of every frame, events, distractions
  templates/<class>/*.png  crops of the same bench at another time
  templates_ng/<thing>/*.png
  demo-line.yaml           a line file that uses all of it
"""

from labelmill.datasets.sample.generate import LABELS, Sample, generate_sample

__all__ = ["LABELS", "Sample", "generate_sample"]
