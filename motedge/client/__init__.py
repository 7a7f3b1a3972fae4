"""The robot's side: chunks of actions in flight, and the envelope that every action passes before the robot.

Needs numpy alone (and tomli below Python 3.11), nothing of the runtime: the policy may run elsewhere.
"""
