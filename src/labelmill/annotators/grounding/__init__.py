"""What both makers of Grounding DINO share (LRIAR, eq. 1: `B_t = D_GD(I_t, T)`).

Source: Liu et al., *Grounding DINO: Marrying DINO with Grounded Pre-Training for Open-Set Object Detection*,
ECCV 2024.
"""
