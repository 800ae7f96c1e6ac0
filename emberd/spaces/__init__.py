"""Are these vectors of the same space? Which may be compared is what emberd is about.

`compare.py` holds the rule, and is the only place that decides. `fingerprint.py` names a space,
`options.py` lists what shapes one besides its files, and `probes.py` measures one by eight short
texts. `lock.py` and `stores.py` remember which space each model gives and each store holds, and
`judge.py` decides at every load whether a model still gives the space that was accepted.

Nothing here imports numpy: the server compares spaces, too.
"""
