"""One signed file with everything a server needs that reaches nothing: wheels, the product's tree,
weights, who wrote what under which licence.

``build.py`` makes one and is the story; ``verify.py`` says whether one is what was signed.
``wheels.py`` and ``portable_llama.py`` are the only modules of the product that talk to package
indexes, and only ``build.py`` imports them.
"""
