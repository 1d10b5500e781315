//! From a request with its parameters to a frame of a camera.

use std::{collections::HashMap, time::Duration};

use data_encoding::HEXLOWER;
use tonic::Status;

use super::{
    Sender,
    pb::{self, infer_parameter::ParameterChoice},
    tensors::{self, Asked},
};
use crate::{
    core::lineage::entry::COUNTER_MAX,
    edge::{convert, inspection::InspectionLimits, status::bad_field},
    services::{
        inspect::{gaps::Source, record::salt, request::FrameRequest},
        recipes::RecipeBook,
    },
    types::{Blake3Digest, FrameId, ProductId},
};

/// Parameters that a request may have. `timeout` is the protocol's own, in microseconds.
const PARAMETERS: [&str; 10] =
    ["line", "station", "camera", "product", "serial", "lot", "frame_id", "frame_counter", "image_blake3", "timeout"];

/// Where a frame comes from that does not say it itself.
#[derive(Clone, Debug, Default)]
pub struct OriginDefaults {
    pub source: Option<Source>,
    pub product: Option<ProductId>,
}

/// Which frame of which camera a request has.
pub(super) struct Origin {
    pub source: Source,
    pub frame: FrameId,
    /// The camera's own counter, if it was sent.
    pub counter: Option<u64>,
}

pub(super) struct Origins {
    defaults: OriginDefaults,
}

impl Origins {
    pub fn new(defaults: OriginDefaults) -> Self {
        Self { defaults }
    }

    /// Which camera a request is from, and which of its frames it is.
    pub fn of(&self, parameters: &Parameters, request_id: &str) -> Result<Origin, Status> {
        let id = match parameters.text("frame_id")? {
            Some(id) => id,
            None if request_id.is_empty() => format!("oip-{}", HEXLOWER.encode(&salt())),
            None => request_id.to_owned(),
        };
        Ok(Origin {
            source: self.source(parameters)?,
            frame: convert::field("parameters.frame_id", id)?,
            counter: parameters.number("frame_counter")?,
        })
    }

    /// Checks everything of a request but its outputs.
    pub fn frame(
        &self,
        mut message: pb::ModelInferRequest,
        parameters: &Parameters,
        (source, frame, counter): (Source, FrameId, u64),
        (asked, book): (&Asked, &RecipeBook),
        limits: &InspectionLimits,
        sender: Sender,
    ) -> Result<FrameRequest, Status> {
        parameters.check()?;
        let recipe = asked.recipe.recipe.reference();
        let product = self.product(parameters, book.only_product_of(&recipe))?;
        let serial = parameters.text("serial")?.unwrap_or_else(|| frame.to_string());
        let serial = convert::field("parameters.serial", serial)?;
        let lot = parameters.text("lot")?.map(|lot| convert::field("parameters.lot", lot)).transpose()?;
        let timeout = parameters.number("timeout")?.filter(|us| *us > 0).map(Duration::from_micros);
        let (image, raw) = tensors::image(&mut message, &asked.recipe.recipe)?;
        if image.is_empty() || image.len() > limits.frame_bytes_max {
            let (len, max) = (image.len(), limits.frame_bytes_max);
            return Err(bad_field("inputs", format!("hold {len} bytes; a frame has 1 to {max} here")));
        }
        Ok(FrameRequest {
            source,
            frame,
            counter,
            trigger: None,
            captured: None,
            product,
            serial,
            lot,
            recipe: Some(recipe),
            claimed: parameters.digest()?,
            image,
            raw,
            client: sender.caller.identity.said(),
            received: sender.received,
            useful_for: [sender.timeout, timeout].into_iter().flatten().fold(limits.useful_for, Duration::min),
        })
    }

    fn source(&self, parameters: &Parameters) -> Result<Source, Status> {
        let default = self.defaults.source.as_ref();
        fn name<T: std::str::FromStr>(parameters: &Parameters, name: &str, default: Option<T>) -> Result<T, Status>
        where
            T::Err: std::fmt::Display,
        {
            match parameters.text(name)? {
                Some(text) => convert::field(&format!("parameters.{name}"), text),
                None => default.ok_or_else(|| {
                    bad_field(
                        &format!("parameters.{name}"),
                        "is missing; send it, or set [open_inference] in lineproof.toml",
                    )
                }),
            }
        }
        Ok(Source {
            line: name(parameters, "line", default.map(|source| source.line.clone()))?,
            station: name(parameters, "station", default.map(|source| source.station.clone()))?,
            camera: name(parameters, "camera", default.map(|source| source.camera.clone()))?,
        })
    }

    /// The product of a frame: what the request says, else the configured one, else the `only` one that its recipe inspects now.
    fn product(&self, parameters: &Parameters, only: Option<&ProductId>) -> Result<ProductId, Status> {
        if let Some(product) = parameters.text("product")? {
            return convert::field("parameters.product", product);
        }
        let product = self.defaults.product.as_ref().or(only);
        product.cloned().ok_or_else(|| {
            bad_field(
                "parameters.product",
                "is missing, and not exactly one product is configured for this model; send it",
            )
        })
    }
}

/// The parameters of a request.
pub(super) struct Parameters(pub HashMap<String, pb::InferParameter>);

impl Parameters {
    fn check(&self) -> Result<(), Status> {
        match self.0.keys().find(|name| !PARAMETERS.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().take(80).collect();
                let known = PARAMETERS.join(", ");
                Err(bad_field("parameters", format!("{name:?} is no parameter here; those there are: {known}")))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<String>, Status> {
        match self.0.get(name).map(|parameter| &parameter.parameter_choice) {
            None => Ok(None),
            Some(Some(ParameterChoice::StringParam(text))) => Ok(Some(text.clone())),
            // Serial numbers and lots that are numbers come as numbers.
            Some(Some(ParameterChoice::Int64Param(number))) => Ok(Some(number.to_string())),
            Some(Some(ParameterChoice::Uint64Param(number))) => Ok(Some(number.to_string())),
            Some(_) => Err(bad_field(&format!("parameters.{name}"), "is a text")),
        }
    }

    fn digest(&self) -> Result<Option<Blake3Digest>, Status> {
        let Some(hex) = self.text("image_blake3")? else { return Ok(None) };
        let bytes = HEXLOWER.decode(hex.as_bytes()).ok();
        let digest = bytes.and_then(|bytes| Blake3Digest::from_slice(&bytes).ok());
        digest.map(Some).ok_or_else(|| bad_field("parameters.image_blake3", "is 64 hex digits in lower case"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let wrong = || bad_field(&format!("parameters.{name}"), format!("is a whole number up to {COUNTER_MAX}"));
        let counter = match self.0.get(name).map(|parameter| &parameter.parameter_choice) {
            None => return Ok(None),
            Some(Some(ParameterChoice::Int64Param(counter))) => u64::try_from(*counter).map_err(|_| wrong())?,
            Some(Some(ParameterChoice::Uint64Param(counter))) => *counter,
            Some(_) => return Err(wrong()),
        };
        if counter <= COUNTER_MAX { Ok(Some(counter)) } else { Err(wrong()) }
    }
}
