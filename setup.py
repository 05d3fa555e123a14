"""What setup.cfg cannot say: the embedded world's checkpoint travels inside the wheel.

``utkface-64`` does not: it is for research only and stays apart from what is MIT.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["vlbias", "vlbias.*"]), "vlbias._checkpoints"],
    package_dir={"vlbias._checkpoints": "checkpoints"},
    package_data={
        "vlbias": ["py.typed", "checkpoints/shipped.json", "pages/templates/*", "app/*.css", "app/*.js", "bench/*.txt"],
        "vlbias._checkpoints": ["synthfaces-64/*", "synthfaces-64/*/*"],
    },
)
