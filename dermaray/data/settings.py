"""The schema of what `dermaray prepare` may be told. Each default is stated here, or in what is imported."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from dermaray.data.findings import Policies
from dermaray.data.split import SplitConfig
from dermaray.yaml_config import Section


class CheckConfig(Section):
    """When a class is too small. A group is what no split parts: a lesion, mostly.

    Attributes:
        min_train_groups: Fewer to learn from are reported.
        min_test_groups: Fewer to measure on are reported. Of 20 lesions, a sensitivity is known to about 17 points.
    """

    min_train_groups: int = Field(50, ge=0)
    min_test_groups: int = Field(20, ge=0)


class PrepareConfig(Section):
    """How a source becomes a manifest.

    Attributes:
        labels: Name of a label set, or null for the one that fits.
        reference: CSVs, or folders of CSVs, with a ground truth to compare with. They also tell lesion, patient, age,
            sex and site where the source does not.
        policies: What to do about each finding.
        checks: When a class is too small.
        splits: How the images are split.
    """

    labels: str | None = None
    reference: Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)] = ()
    policies: Policies = Field(default_factory=Policies)
    checks: CheckConfig = Field(default_factory=CheckConfig)
    splits: SplitConfig = Field(default_factory=SplitConfig)

    @model_validator(mode="after")
    def _relabelling_has_its_reference(self) -> "PrepareConfig":
        relabelled = [finding for finding in Policies.model_fields if self.policies.of(finding) == "relabel"]
        if relabelled and not self.reference:
            raise ValueError(f"policies.{relabelled[0]}=relabel takes the label of a reference. Add --reference CSV")
        return self
