"""An independent explicit-state oracle for small worlds, written from the contract alone: see ``oracle.search``."""
