"""``nodestatus``: whether given lymph nodes are infiltrated, after Hartenstein et al. 2020."""
