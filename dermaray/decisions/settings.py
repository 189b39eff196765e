"""The schema of what a model's decisions shall be. Each default is stated here alone."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dermaray.yaml_config import Section

_Share = Annotated[float, Field(gt=0.0, lt=1.0)]


class DecisionConfig(Section):
    """What is fitted on the validation images once the network is trained.

    Attributes:
        calibration: `temperature` divides the logits by one number (Guo et al. 2017, "On calibration of modern neural
            networks"), which leaves the order of the classes as it is. `bias_corrected` adds a number for each class as
            well (Alexandari et al. 2020, "Maximum likelihood with bias-corrected calibration is hard-to-beat at label
            shift adaptation"), which takes back what `data.balance` and `training.class_weights` have done to the
            probabilities of rare classes.
        label: Which class is the answer. `most_probable`, or `balanced`: the one whose probability is highest for how
            common it is among the validation images, which makes as much of a rare diagnosis as of a common one. It
            needs probabilities that know how common each is: `calibration: bias_corrected`.
        alert_sensitivity: The share of melanomas that the alert shall find, at least.
        alert_confidence: The confidence with which the alert reaches that share.
        coverage: The share of images of each class whose `prediction_set` shall hold that class.
    """

    calibration: Literal["temperature", "bias_corrected"] = "temperature"
    label: Literal["most_probable", "balanced"] = "most_probable"
    alert_sensitivity: _Share = 0.9
    alert_confidence: _Share = 0.95
    coverage: _Share = 0.9

    @model_validator(mode="after")
    def _balanced_labels_know_what_is_common(self) -> "DecisionConfig":
        if self.label == "balanced" and self.calibration != "bias_corrected":
            raise ValueError(f"label=balanced needs calibration=bias_corrected. Received: {self.calibration}")
        return self
