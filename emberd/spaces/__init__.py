"""Are two vectors in the same space, so that comparing them means something?

This is what emberd is about: mixing spaces gives wrong search results, and no error.

`compare.py` holds the rule, and is the only place that decides. `fingerprint.py` names a space,
`options.py` lists what shapes a space besides its files, and `probes.py` measures one with eight
short texts. `lock.py` and `stores.py` remember which space each model gives and each store holds.
`judge.py` decides at every load whether a model still gives the space that was accepted.

Nothing here imports numpy, because the server compares spaces too.
"""
