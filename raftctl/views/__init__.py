"""What a person sees: rich renderables and JSON, both made from the same model of a cluster's status."""
