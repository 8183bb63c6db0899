"""labelmill: footage of a production line in, versioned training datasets out."""

__version__ = "0.1.0"
