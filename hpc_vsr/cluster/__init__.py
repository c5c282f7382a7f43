"""Starts the stages on a cluster or on this machine: sites, submissions, what the jobs run, requeueing."""
