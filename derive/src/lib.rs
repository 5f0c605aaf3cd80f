//! `#[derive(eshm::Message)]`: what a type is on the wire, for [`eshm`'s schemas][schema].
//!
//! The name of the type and version 1 unless said otherwise, its size, and name, type and offset of
//! every field, folded into one number when the type is compiled. Types of fields are told apart by
//! what they are, not by how they are spelt: an alias is what it stands for, and a struct that derives
//! `Message` counts with all of its fields.
//!
//! ```
//! use eshm::{Error, Message, Options, Role, Schema};
//!
//! #[repr(C)]
//! #[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable, Message)]
//! #[message(name = "telemetry", version = 3)]
//! struct Sample {
//!     time_ns: u64,
//!     value: f64,
//! }
//!
//! # let name = format!("doc-derive-{}", std::process::id());
//! let mut options = Options::new(&name);
//! let master = options.role(Role::Master).writes(Schema::of::<Sample>()).open()?;
//! let slave = Options::new(&name).role(Role::Slave).open()?;
//!
//! let (writer, _) = master.split();
//! let (_, reader) = slave.split();
//! let mut writer = writer.typed::<Sample>()?; // the bus is asked once, here
//! let mut reader = reader.typed::<Sample>()?;
//! writer.write(&Sample { time_ns: 1, value: 0.5 })?;
//! assert_eq!(reader.read()?.value, 0.5);
//! # Ok::<(), Error>(())
//! ```
//!
//! A field of a type that is not described is an error of the compiler:
//!
//! ```compile_fail,E0277
//! #[derive(eshm::Message)]
//! struct Named {
//!     name: String,
//! }
//! ```
//!
//! So is anything but a struct:
//!
//! ```compile_fail
//! #[derive(eshm::Message)]
//! enum Either {
//!     This,
//!     That,
//! }
//! ```
//!
//! [schema]: https://docs.rs/eshm/latest/eshm/struct.Schema.html

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Data, DeriveInput, Error, Index, LitInt, LitStr, Result, parse_quote};

/// Implements `eshm::Message` and `eshm::Described`; see the [crate] for an example.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    derived(input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn derived(mut input: DeriveInput) -> Result<TokenStream> {
    let Said { name, version } = said(&input)?;
    let fields = described_fields(&input)?;
    for parameter in input.generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(::eshm::Described));
    }
    let ident = &input.ident;
    let (generics, arguments, conditions) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics ::eshm::Described for #ident #arguments #conditions {
            const LAYOUT: u64 = ::eshm::layout_of(&[#(#fields),*], ::core::mem::size_of::<Self>());
        }

        #[automatically_derived]
        impl #generics ::eshm::Message for #ident #arguments #conditions {
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
        }
    })
}

/// What `#[message(...)]` says.
struct Said {
    name: String,
    version: u32,
}

fn said(input: &DeriveInput) -> Result<Said> {
    let mut said = Said { name: input.ident.unraw().to_string(), version: 1 };
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                let text: LitStr = meta.value()?.parse()?;
                said.name = text.value();
                if said.name.is_empty() || said.name.len() > 64 {
                    return Err(Error::new(text.span(), "a name has 1 to 64 bytes"));
                }
                if said.name.chars().any(char::is_control) {
                    return Err(Error::new(text.span(), "a name has no control characters"));
                }
            } else if meta.path.is_ident("version") {
                said.version = meta.value()?.parse::<LitInt>()?.base10_parse()?;
            } else {
                return Err(meta.error("expected `name = \"...\"` or `version = ...`"));
            }
            Ok(())
        })?;
    }
    Ok(said)
}

/// Each field as `(name, offset, number of its type)`.
fn described_fields(input: &DeriveInput) -> Result<Vec<TokenStream>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "only a struct can be a message"));
    };
    let fields = data.fields.iter().enumerate().map(|(index, field)| {
        let kind = &field.ty;
        let (name, member) = match &field.ident {
            Some(ident) => (ident.unraw().to_string(), quote!(#ident)),
            None => {
                let index = Index::from(index);
                (index.index.to_string(), quote!(#index))
            }
        };
        quote! {
            (
                #name,
                ::core::mem::offset_of!(Self, #member),
                <#kind as ::eshm::Described>::LAYOUT,
            )
        }
    });
    Ok(fields.collect())
}
