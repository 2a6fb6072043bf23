"""The topo-cluster columns of the flat ClusterTree that studies use by default.

Order, units and transforms: arXiv 2412.04370, Eq. 3 and Tables 1 and 2.
"""

from pipeline.formats.columns import Column, Feature

TOPO_CLUSTER_FEATURES = (
    Feature(name="clusterE", unit="GeV", transform="log10_standard"),
    Feature(name="clusterEta", transform="standard"),
    Feature(name="cluster_SIGNIFICANCE", transform="log10_standard"),
    Feature(name="cluster_SECOND_TIME", unit="ns^2", transform="log10_standard"),
    Feature(name="cluster_CENTER_LAMBDA", unit="mm", transform="log10_standard"),
    Feature(name="cluster_CENTER_MAG", unit="mm", transform="standard"),
    Feature(name="cluster_FIRST_ENG_DENS", unit="GeV/mm^3", transform="log10_standard"),
    Feature(name="cluster_LONGITUDINAL", transform="standard"),
    Feature(name="cluster_LATERAL", transform="standard"),
    Feature(name="cluster_PTD", transform="standard"),
    Feature(name="cluster_ENG_FRAC_EM", transform="standard"),
    Feature(name="cluster_ISOLATION", transform="standard"),
    Feature(name="cluster_time", unit="ns", transform="max_abs"),
    Feature(name="nPrimVtx", transform="standard"),
    Feature(name="avgMu", transform="standard"),
)

# Kept where the inputs have them: truth classes, LCW, positions for the r-|z| maps.
TOPO_CLUSTER_EXTRAS = (
    Column(name="cluster_ENG_CALIB_FRAC_EM", role="truth"),
    Column(name="cluster_RESPONSE_COMPONENT", role="label"),  # of a simulated sample
    Column(name="cluster_EM_PROBABILITY", role="reference"),
    Column(name="cluster_HAD_WEIGHT", role="reference"),
    Column(name="cluster_CENTER_X", unit="mm", role="reference"),
    Column(name="cluster_CENTER_Y", unit="mm", role="reference"),
    Column(name="cluster_CENTER_Z", unit="mm", role="reference"),
)
