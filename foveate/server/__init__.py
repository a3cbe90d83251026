"""A classifier behind HTTP, with a page: one process, which needs no torch.

    connections ── requests ── images ── decode threads ── engine thread ── rows
     connection.py  app.py     uploads.py        └── batching.py ──┘

The event loop reads and writes, threads decode, and one thread runs the engine. Whenever that is
free, all images that are decoded form its next batch: none waits for a clock. What waits is
bounded, in images and in bytes; what is beyond is told to come again.
"""
