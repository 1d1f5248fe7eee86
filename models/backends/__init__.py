"""Runtimes: they call a network in the same way, whatever kind of file it comes from."""

from models.backends.multi import DetectMultiBackend

__all__ = ["DetectMultiBackend"]
