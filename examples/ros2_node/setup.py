"""For colcon: the node as a ROS 2 package."""

from setuptools import setup

setup(
    name="motedge_policy",
    version="0.1.0",
    packages=["motedge_policy"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/motedge_policy"]),
        ("share/motedge_policy", ["package.xml"]),
        ("share/motedge_policy/config", ["config/droid.yaml"]),
    ],
    # Not on PyPI's terms: the interpreter of ROS needs it installed, pip install "motedge[client]"
    install_requires=["motedge[client]"],
    entry_points={"console_scripts": ["policy_node = motedge_policy.node:main"]},
)
