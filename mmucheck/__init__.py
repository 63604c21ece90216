"""A formal checker for the placement of Linux mmu_notifier calls."""

__version__ = "0.1.0"
