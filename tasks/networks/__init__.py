"""The networks that can be trained, a module for each family; they need nothing but torch, or timm."""
