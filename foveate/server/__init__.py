"""A classifier behind HTTP, with a page: one process, which needs no torch.

    connections ── requests ── images ── threads: decode, then run the engine ── rows
     connection.py  app.py     uploads.py   batching.py

The event loop reads and writes; threads decode. One that finds a stream of the engine free runs all
images that are decoded by then: none waits for a clock. What waits is bounded, in images and in
bytes; whatever is beyond is told to come again.
"""
