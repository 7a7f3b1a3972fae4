"""The keys of messages between a policy server and its clients, shared by both sides.

An observation is one map a message; `observation_keys` of the metadata says which keys. A DROID robot's:

    observation/image                   uint8 [540, 640, 3] RGB: wrist on top, left and right halved below
    observation/wrist_image_left        or the cameras by name, uint8 [rows, columns, 3] RGB of any size
    observation/exterior_image_1_left   over the left shoulder
    observation/exterior_image_2_left   over the right shoulder
    observation/joint_position          float [7], rad
    observation/gripper_position        float [1] or a number: fraction closed
    prompt                              str: the instruction
    motedge/...                         what other servers don't know, all optional; see below

A vehicle's (embodiment av), which has no state:

    observation/image                   uint8 [rows, columns, 3] RGB, of the shape that the metadata's image_size has
    prompt                              str: the instruction
    motedge/...                         as above

Where `observation/exterior_image_0_left` is given, cameras are counted from 0 (RoboArena): 0 left, 1 right. Other keys
are left alone. Names as of openpi's DROID client, NVIDIA's cosmos-framework server and RoboLab's client of it.

An answer is a map with `actions` and `server_timing`, in the order of the requests. What went wrong comes as text; a
request with `motedge/request_id` gets a map with `error` instead.
"""

from __future__ import annotations

PREFIX = "motedge/"
# int or str, repeated in the answer
REQUEST_ID = "motedge/request_id"
# float: the answer is worth nothing so many ms after the request came
DEADLINE_MS = "motedge/deadline_ms"
# float [n, fields]: actions that are executed in any case, from the observation on; the chunk begins with them
COMMITTED = "motedge/committed"
# int: of the noise, 0 to 2^32 - 1
SEED = "motedge/seed"
REQUEST_KEYS = (REQUEST_ID, DEADLINE_MS, COMMITTED, SEED)

IMAGE = "observation/image"
WRIST = "observation/wrist_image_left"
EXTERIOR_0 = "observation/exterior_image_0_left"
EXTERIOR_1 = "observation/exterior_image_1_left"
EXTERIOR_2 = "observation/exterior_image_2_left"
JOINTS = "observation/joint_position"
GRIPPER = "observation/gripper_position"
PROMPT = "prompt"

METADATA_SCHEMA = "motedge.policy_server/v1"

# What an `error` may say in `code`
DROPPED = "dropped"  # a newer observation of the same client came before this one's turn
DEADLINE = "deadline"  # its deadline passed, and there was nothing left of an earlier chunk
BUSY = "busy"  # as many requests wait as are allowed
RATE = "rate"  # more requests a second than are allowed
OBSERVATION = "observation"  # the observation, or what it came with, can't be taken
UNREADABLE = "unreadable"  # no message of this protocol; the connection is closed
STOPPING = "stopping"  # the server is about to end
FAILED = "failed"  # the policy failed; the server's log says more
ERROR_CODES = (DROPPED, DEADLINE, BUSY, RATE, OBSERVATION, UNREADABLE, STOPPING, FAILED)
