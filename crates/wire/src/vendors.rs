//! The vendor table: what is known of a provider by its name.

/// A row: a vendor and where its API lives.
#[derive(Debug)]
pub(crate) struct Vendor {
    /// The `provider` value of a provider key.
    pub(crate) name: &'static str,
    /// Base URL used when the provider key has none.
    pub(crate) base_url: &'static str,
}

const VENDORS: &[Vendor] = &[
    // https://platform.openai.com/docs/api-reference
    Vendor { name: "openai", base_url: "https://api.openai.com/v1" },
];

/// Looks a vendor up; case and outer blanks do not matter. No name means OpenAI.
pub(crate) fn vendor(name: &str) -> Option<&'static Vendor> {
    let name = match name.trim() {
        "" => "openai",
        name => name,
    };
    VENDORS.iter().find(|vendor| vendor.name.eq_ignore_ascii_case(name))
}
