"""Feeds the readers and the command line with damaged and hostile input, and counts what comes of it.

``python -m fuzz`` (see ``make fuzz``) makes so many cases, each from the seed and its number alone, in two processes. A
case may end well or in an error of our own; a traceback, more than 20 s of the processor, a program started, a
connection opened or a byte written outside its folder is a fault.
"""
