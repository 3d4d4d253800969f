"""indelible: do model edits survive fine-tuning, and how do you make them?"""

__version__ = "0.1.0"
