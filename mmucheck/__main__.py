"""``python -m mmucheck``."""

from mmucheck.cli.main import script

if __name__ == "__main__":
    script()
