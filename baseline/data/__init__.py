"""From documents to packed rows of tokens: preparation off the clock, and the reader that the trainer uses on it.

    docstrings               the embedded corpus, as shards
    download, hub, lockfile  public shards, from the hub or from a folder, verified; space: that the disk has room for them
    shards                   their documents in one global order
    tokenizer, encoding      byte-pair encoding, trained on the training split; text to token ids, fast
    pieces, packing          documents to token ids, token ids to rows without padding
    prepare                  shards to tokenizer and rows
    manifest, integrity      what a prepared folder is, and the check that it still is
    durable, progress        files that are whole or absent; where long work reports
    rows, bits_per_byte      what training and scoring need: rows by position, and the metric

Nothing is imported here, so that a trainer which only reads rows needs torch and numpy alone.
"""
