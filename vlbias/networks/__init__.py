"""Networks that users bring: face embedders and classifiers from local files, or any function of their own."""

from vlbias.networks.files import load_network, of_classifier
from vlbias.networks.inputs import FaceInput
from vlbias.networks.network import FaceNetwork
from vlbias.networks.outputs import FaceOutput

__all__ = ["FaceInput", "FaceNetwork", "FaceOutput", "load_network", "of_classifier"]
