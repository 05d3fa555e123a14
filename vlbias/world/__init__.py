"""The embedded world: procedurally drawn faces with true attributes and true counterfactuals.

Example:
    >>> from vlbias import world
    >>> faces = world.sample(4, bias={("smile", "skin"): 0.9}, seed=0)
    >>> world.render(faces, size=64).shape
    torch.Size([4, 3, 64, 64])
    >>> older = faces.replace(age=75.0)          # the same faces, noise included
"""

from vlbias.world.attributes import ATTRIBUTES, CATEGORIES, DEPENDENT_COLUMNS, EXPRESSIONS, LABELS, NUISANCES, TRAITS
from vlbias.world.faces import Faces
from vlbias.world.phrases import DIPOLES
from vlbias.world.render import render
from vlbias.world.sampling import identities, sample

__all__ = [
    "ATTRIBUTES",
    "CATEGORIES",
    "DEPENDENT_COLUMNS",
    "DIPOLES",
    "EXPRESSIONS",
    "LABELS",
    "NUISANCES",
    "TRAITS",
    "Faces",
    "identities",
    "render",
    "sample",
]
