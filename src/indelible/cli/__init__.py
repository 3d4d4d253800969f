"""The command line: thin commands over the rooms, one file each.

Nothing heavy is imported before a command needs it, so that ``indelible --help`` answers at once.
"""
