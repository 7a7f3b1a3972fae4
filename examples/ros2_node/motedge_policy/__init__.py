"""A ROS 2 node that drives an arm by a motedge policy server."""
