//! The versions of a photo.

use std::io::Cursor;

use image::{
    DynamicImage, ImageError, ImageFormat, ImageReader, Limits, imageops, imageops::FilterType,
};

/// The longer side of each version, in pixels.
const SIDE_PIXELS: u32 = 480;

/// One version of a photo.
pub(crate) struct Version {
    pub(crate) name: &'static str,
    filter: fn(DynamicImage) -> DynamicImage,
}

/// The versions of each photo.
pub(crate) const VERSIONS: [Version; 8] = [
    Version {
        name: "thumbnail",
        filter: |photo| photo,
    },
    Version {
        name: "gray",
        filter: |photo| photo.grayscale(),
    },
    Version {
        name: "blurred",
        filter: |photo| photo.blur(6.0),
    },
    Version {
        name: "sharpened",
        filter: |photo| photo.unsharpen(3.0, 4),
    },
    Version {
        name: "bright",
        filter: |photo| photo.brighten(40),
    },
    Version {
        name: "contrast",
        filter: |photo| photo.adjust_contrast(40.0),
    },
    Version {
        name: "hue rotated",
        filter: |photo| photo.huerotate(120),
    },
    Version {
        name: "dithered",
        filter: dithered,
    },
];

/// Decodes a photo, within a memory limit.
pub(crate) fn open(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    // A small file can decode to a huge picture.
    let mut limits = Limits::default();
    limits.max_alloc = Some(256 << 20);
    reader.limits(limits);
    reader.decode()
}

impl Version {
    /// Returns this version of a photo as a PNG.
    pub(crate) fn png(&self, photo: &DynamicImage) -> Result<Vec<u8>, ImageError> {
        let small = photo.resize(SIDE_PIXELS, SIDE_PIXELS, FilterType::Lanczos3);
        let mut png = Cursor::new(Vec::new());
        (self.filter)(small).write_to(&mut png, ImageFormat::Png)?;
        Ok(png.into_inner())
    }
}

/// Converts a photo to black and white dots.
fn dithered(photo: DynamicImage) -> DynamicImage {
    let mut gray = photo.to_luma8();
    imageops::dither(&mut gray, &imageops::BiLevel);
    gray.into()
}
