# Sourced while an image is built: the optional build secrets, see install.sh.
if [ -f /run/secrets/ca ]; then
  export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca NODE_EXTRA_CA_CERTS=/run/secrets/ca
fi
if [ -f /run/secrets/index ]; then
  set -a
  . /run/secrets/index
  set +a
fi
