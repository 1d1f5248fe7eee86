"""Runtimes: one way to call a network, whatever kind of file it comes from."""

from models.backends.multi import DetectMultiBackend

__all__ = ["DetectMultiBackend"]
