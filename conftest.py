"""Examples in docstrings are run of all modules that can be imported here."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("gradio") else ["vlbias/app/*"]
