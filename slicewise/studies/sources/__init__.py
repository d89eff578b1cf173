"""Where scans come from: one module per kind of source, and what they share.

``parse`` turns the words of ``--source`` into sources; each brings its files into a folder of its own
(``base.Source``); ``slicewise.studies.acquire`` makes a dataset of those folders.
"""
