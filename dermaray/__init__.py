"""dermaray: classifiers of dermoscopic images, trained, evaluated, bulk-scored and served on Ray."""

__version__ = "0.1.0"
