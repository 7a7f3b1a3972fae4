"""Planning before building: what fits, what is legal, how long a tick takes, what to change. Schema motedge.plan/v1."""

from motedge.targets.plan.make import PlanOptions, make_plan
from motedge.targets.plan.model import SCHEMA, Plan

__all__ = ["SCHEMA", "Plan", "PlanOptions", "make_plan"]
