//! Messages of RFC 4252, decoded by the monitor.

use super::error::ProtocolError;
use super::message;
use super::wire::{Reader, Writer};

/// SSH_MSG_USERAUTH_REQUEST (RFC 4252 section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRequest<'a> {
    /// Login name as the client spells it.
    pub user: &'a [u8],
    /// Service to start; only `ssh-connection` exists here.
    pub service: &'a [u8],
    /// The method and its fields.
    pub method: Method<'a>,
}

/// An authentication method with its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method<'a> {
    /// `none`.
    None,
    /// `publickey` and `publickey-hostbound-v00@openssh.com`.
    PublicKey(PublicKeyRequest<'a>),
    /// A method that is not served here, by name.
    Other(&'a [u8]),
}

/// RFC 4252 section 7; OpenSSH PROTOCOL 1.6 for the host-bound form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyRequest<'a> {
    /// Signature algorithm.
    pub algorithm: &'a [u8],
    /// Public key blob.
    pub key: &'a [u8],
    /// Host key blob that the client saw, in the host-bound form.
    pub host_key: Option<&'a [u8]>,
    /// The signature blob; `None`: a query whether the key would do.
    pub signature: Option<&'a [u8]>,
}

const HOSTBOUND: &[u8] = b"publickey-hostbound-v00@openssh.com";

impl<'a> AuthRequest<'a> {
    /// Decodes the payload behind the message number.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        let user = reader.string("user name")?;
        let service = reader.string("service name")?;
        let name = reader.string("method name")?;
        let method = match name {
            b"none" => Method::None,
            b"publickey" | HOSTBOUND => {
                let signed = reader.boolean("has signature")?;
                let algorithm = reader.string("public key algorithm")?;
                let key = reader.string("public key blob")?;
                let host_key = match name {
                    HOSTBOUND => Some(reader.string("server host key")?),
                    _ => None,
                };
                let signature = if signed {
                    Some(reader.string("signature")?)
                } else {
                    None
                };
                Method::PublicKey(PublicKeyRequest {
                    algorithm,
                    key,
                    host_key,
                    signature,
                })
            }
            other => {
                // Not ours to judge: refused by name, whatever follows.
                return Ok(Self {
                    user,
                    service,
                    method: Method::Other(other),
                });
            }
        };
        reader.finish(message::USERAUTH_REQUEST)?;
        Ok(Self {
            user,
            service,
            method,
        })
    }

    /// The bytes that the client signs (RFC 4252 section 7), or `None` where there is no signature.
    pub fn signed_data(&self, session_id: &[u8]) -> Option<Vec<u8>> {
        let Method::PublicKey(request) = &self.method else {
            return None;
        };
        request.signature?;
        let mut data = Vec::new();
        data.put_string(session_id);
        data.put_u8(message::USERAUTH_REQUEST);
        data.put_string(self.user);
        data.put_string(self.service);
        data.put_string(if request.host_key.is_some() {
            HOSTBOUND
        } else {
            b"publickey"
        });
        data.put_boolean(true);
        data.put_string(request.algorithm);
        data.put_string(request.key);
        if let Some(host_key) = request.host_key {
            data.put_string(host_key);
        }
        Some(data)
    }
}
