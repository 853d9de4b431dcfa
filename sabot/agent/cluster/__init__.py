"""The agents that there are: who belongs to the cluster, and whether they answer."""
