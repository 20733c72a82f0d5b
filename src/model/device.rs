//! Where a model runs: the device a user names, and which part of the model lies on which device.

use super::backend::Backend;
use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use std::fmt;
use std::str::FromStr;

/// Rows of a head's matrix that are multiplied and reduced together on a device: logits of some hundred rows and what is
/// made of them then take some ten megabytes each, and their sums keep their digits in f32.
const TILE: usize = 4096;

/// What to run a model on, as a user names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// CUDA devices by number; blocks are spread over several.
    Cuda(Vec<usize>),
    /// The GPU of an Apple machine.
    Metal,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WORDS: &str = "must be cpu, cuda, cuda:N, cuda:N,M or metal";
        match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(vec![0])),
            "metal" => return Ok(Self::Metal),
            _ => {}
        }
        let list = text.strip_prefix("cuda:").ok_or(WORDS)?;
        let mut numbers: Vec<usize> = Vec::new();
        for number in list.split(',') {
            let number = number.parse().map_err(|_| WORDS)?;
            if numbers.contains(&number) {
                return Err(format!("names device {number} twice"));
            }
            numbers.push(number);
        }
        Ok(Self::Cuda(numbers))
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Metal => f.write_str("metal"),
            Self::Cuda(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "cuda:{}", numbers.join(","))
            }
        }
    }
}

impl DeviceChoice {
    /// The kinds of devices that this build can run models on.
    #[must_use]
    pub fn built() -> Vec<&'static str> {
        [
            ("cpu", true),
            ("cuda", cfg!(feature = "cuda")),
            ("metal", cfg!(feature = "metal")),
        ]
        .into_iter()
        .filter_map(|(name, built)| built.then_some(name))
        .collect()
    }

    /// Refuse what this build cannot run on.
    ///
    /// # Errors
    /// If it was built without the feature; the sentence says which.
    pub fn check(&self) -> Result<()> {
        let feature = match self {
            Self::Cpu => return Ok(()),
            Self::Cuda(_) => "cuda",
            Self::Metal => "metal",
        };
        match Self::built().contains(&feature) {
            true => Ok(()),
            false => Err(Error::Usage(format!(
                "this build runs models on {} alone, not on `{self}`: build it with `cargo build --release --features \
                 {feature}`, or leave --device out",
                Self::built().join(" and ")
            ))),
        }
    }

    /// Open the devices.
    ///
    /// # Errors
    /// If this build or this machine has none of the kind; the sentence has the driver's words.
    pub fn open(&self) -> Result<Placement> {
        self.check()?;
        let failed = |name: &str, e: candle_core::Error| {
            Error::failed(
                format!(
                    "the device {name} cannot be opened: {}",
                    crate::text::one_line(&e.to_string())
                ),
                "See that its driver works and that there is a device of this number, or leave --device out to run on \
                 the processor.",
            )
        };
        let places = match self {
            Self::Cpu => vec![Place::cpu()],
            Self::Metal => {
                let device = Device::new_metal(0).map_err(|e| failed("metal", e))?;
                vec![Place::on(device)]
            }
            Self::Cuda(numbers) => {
                // Products of blocks that would round their inputs to 8 bits otherwise.
                #[cfg(feature = "cuda")]
                candle_core::quantized::cuda::set_force_dmmv(true);
                let open = |number: &usize| {
                    let device = Device::new_cuda(*number);
                    device
                        .map(Place::on)
                        .map_err(|e| failed(&format!("cuda:{number}"), e))
                };
                numbers.iter().map(open).collect::<Result<_>>()?
            }
        };
        Ok(Placement {
            name: match self {
                Self::Cpu => format!("cpu×{}", rayon::current_num_threads()),
                other => other.to_string(),
            },
            places,
        })
    }
}

/// One device and how to compute there.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where weights, memories and states lie.
    pub device: Device,
    /// Which code computes there.
    pub backend: Backend,
    /// Rows of the head's matrix that are read together.
    pub(crate) tile: usize,
}

impl Place {
    /// The processor with its kernels.
    #[must_use]
    pub fn cpu() -> Self {
        Self::on(Device::Cpu)
    }

    /// A device, computing as is best there.
    #[must_use]
    pub fn on(device: Device) -> Self {
        Self {
            backend: Backend::of(&device),
            device,
            tile: TILE,
        }
    }

    /// `t` here; the tensor itself where it is here already.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub(crate) fn bring(&self, t: &Tensor) -> candle_core::Result<Tensor> {
        if t.device().same_device(&self.device) {
            return Ok(t.clone());
        }
        // A view would take all of what it is a view of along.
        t.force_contiguous()?.to_device(&self.device)
    }
}

/// Which part of a model lies where: the embedding on the first place, the blocks spread over all in their order, the
/// final norm and the head on the last.
#[derive(Clone, Debug)]
pub struct Placement {
    name: String,
    /// At least one.
    places: Vec<Place>,
}

impl Default for Placement {
    fn default() -> Self {
        Self::on(&Device::Cpu)
    }
}

impl Placement {
    /// Everything on one device.
    #[must_use]
    pub fn on(device: &Device) -> Self {
        let name = match device {
            Device::Cpu => format!("cpu×{}", rayon::current_num_threads()),
            Device::Cuda(_) => "cuda".to_owned(),
            Device::Metal(_) => "metal".to_owned(),
        };
        Self {
            name,
            places: vec![Place::on(device.clone())],
        }
    }

    /// The tensor operations of other devices on the processor, spread over so many places, with tiles of `tile` rows
    /// of the head's matrix: what tests hold against the reference where there is no other device.
    #[doc(hidden)]
    #[must_use]
    pub fn of_tensor_operations(places: usize, tile: usize) -> Self {
        let place = Place {
            device: Device::Cpu,
            backend: Backend::Tensors,
            tile: tile.max(1),
        };
        Self {
            name: format!("cpu, tensor operations, {places} places"),
            places: vec![place; places.max(1)],
        }
    }

    /// The devices in words, such as `cpu×8` or `cuda:0,1`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where text enters.
    #[must_use]
    pub fn first(&self) -> &Place {
        &self.places[0]
    }

    /// Where logits come out.
    #[must_use]
    pub fn last(&self) -> &Place {
        &self.places[self.places.len() - 1]
    }

    /// Index of the place of block `block` of `blocks`, for [`Self::place`]: even shares in the blocks' order.
    #[must_use]
    pub fn of_block(&self, block: usize, blocks: usize) -> usize {
        (block * self.places.len() / blocks.max(1)).min(self.places.len() - 1)
    }

    /// How many places.
    #[must_use]
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// One of the places.
    #[must_use]
    pub fn place(&self, index: usize) -> &Place {
        &self.places[index]
    }

    /// Whether every number is summed in an order of its own everywhere, so that cached, chunked and batched reading give
    /// the same bits. Elsewhere the order is the device's.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.places.iter().all(|p| p.backend == Backend::Kernels)
    }

    /// Whether the weights lie in main memory.
    #[must_use]
    pub fn in_main_memory(&self) -> bool {
        self.places.iter().all(|p| p.device.is_cpu())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_understood_and_written_back() {
        let cuda = |numbers: &[usize]| DeviceChoice::Cuda(numbers.to_vec());
        for (text, choice, shown) in [
            ("cpu", DeviceChoice::Cpu, "cpu"),
            ("metal", DeviceChoice::Metal, "metal"),
            ("cuda", cuda(&[0]), "cuda:0"),
            ("cuda:3", cuda(&[3]), "cuda:3"),
            ("cuda:1,0", cuda(&[1, 0]), "cuda:1,0"),
        ] {
            assert_eq!(text.parse(), Ok(choice.clone()), "{text}");
            assert_eq!(choice.to_string(), shown);
            assert_eq!(shown.parse(), Ok(choice));
        }
        for wrong in [
            "", "gpu", "cuda:", "cuda:a", "cuda:0,", "cuda:-1", "cpu:0", "metal:1",
        ] {
            let error = wrong.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains("cuda:N"), "{wrong}: {error}");
        }
        let twice = "cuda:0,0".parse::<DeviceChoice>().unwrap_err();
        assert_eq!(twice, "names device 0 twice");
    }

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_build_without_a_feature_says_which_it_needs() {
        assert_eq!(DeviceChoice::built(), ["cpu"]);
        for (text, feature) in [
            ("cuda:0,1", "--features cuda"),
            ("metal", "--features metal"),
        ] {
            let error = text.parse::<DeviceChoice>().unwrap().open().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let error = error.to_string();
            assert!(error.contains(feature) && error.contains(text), "{error}");
        }
        assert!(DeviceChoice::Cpu.open().unwrap().name().starts_with("cpu×"));
    }

    #[test]
    fn blocks_are_spread_evenly_and_in_order() {
        let spread = |places: usize, blocks: usize| -> Vec<usize> {
            let placement = Placement::of_tensor_operations(places, 8);
            (0..blocks).map(|b| placement.of_block(b, blocks)).collect()
        };
        assert_eq!(spread(1, 3), [0, 0, 0]);
        assert_eq!(spread(2, 4), [0, 0, 1, 1]);
        assert_eq!(spread(3, 7), [0, 0, 0, 1, 1, 2, 2]);
        // More devices than blocks: some hold none.
        assert_eq!(spread(4, 2), [0, 2]);
    }

    #[test]
    fn what_is_brought_is_the_view_and_not_what_it_is_a_view_of() {
        let t = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap();
        let view = t.reshape((4, 3)).unwrap().narrow(0, 2, 1).unwrap();
        let there = Place::cpu().bring(&view).unwrap();
        assert_eq!(there.to_vec2::<f32>().unwrap(), [[6.0, 7.0, 8.0]]);
    }
}
